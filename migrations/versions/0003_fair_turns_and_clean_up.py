"""Fair turns, registered workers, and clean-up

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What is still to be claimed, given back or removed, found without a look at all that ever was.
PARTIAL_INDEXES = (
    ("ix_segments_waiting", "segments", ["render_id", "position"], "status = 'waiting'"),
    ("ix_segments_running", "segments", ["render_id"], "status = 'running'"),
    ("ix_files_kept", "files", ["removed_at", "created_at"], "erased_at IS NULL"),
    ("ix_renders_not_cleaned", "renders", ["ended_at"], "cleaned_at IS NULL"),
    ("ix_renders_with_results", "renders", ["files_removed_at", "ended_at"], "output_key IS NOT NULL"),
)


def upgrade() -> None:
    # Every new column may be left out: the version before goes on writing rows meanwhile.
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.add_column(sa.Column("served_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("prepared_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("max_running_segments", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("is_admin", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("priority", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("outages", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("expiries", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("files_removed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("cleaned_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("outages", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("expiries", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(sa.text("UPDATE renders SET ended_at = completed_at WHERE status = 'completed'"))
    op.execute(
        sa.text(
            "UPDATE renders SET ended_at = CURRENT_TIMESTAMP WHERE status = 'failed' AND ended_at IS NULL"
        )
    )
    op.create_index("ix_renders_user_id_status", "renders", ["user_id", "status", "priority", "created_at"])
    op.create_index("ix_segments_render_id_status", "segments", ["render_id", "status", "position"])
    for name, table, columns, condition in PARTIAL_INDEXES:
        op.create_index(
            name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition)
        )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.String(length=100), nullable=False),
        sa.Column("queues", sa.String(length=20), nullable=False),
        sa.Column("engines", sa.JSON(), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=True),
        sa.Column("render_id", sa.String(length=32), nullable=True),
        sa.Column("segment_id", sa.String(length=32), nullable=True),
        sa.Column("units_done", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker", sa.String(length=100), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )


def downgrade() -> None:
    op.drop_table("chores")
    op.drop_table("workers")
    for name, table, _columns, _condition in PARTIAL_INDEXES:
        op.drop_index(name, table_name=table)
    op.drop_index("ix_segments_render_id_status", table_name="segments")
    op.drop_index("ix_renders_user_id_status", table_name="renders")
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.drop_column("expiries")
        batch_op.drop_column("outages")
    with op.batch_alter_table("renders", schema=None) as batch_op:
        for name in ("cleaned_at", "files_removed_at", "ended_at", "expiries", "outages", "priority"):
            batch_op.drop_column(name)
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.drop_column("erased_at")
        batch_op.drop_column("removed_at")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("is_admin")
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.drop_column("max_running_segments")
        batch_op.drop_column("prepared_at")
        batch_op.drop_column("served_at")
