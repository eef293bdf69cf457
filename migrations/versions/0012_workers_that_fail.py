"""Workers that fail

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "failed_attempts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("unit_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("render_id", sa.String(length=32), nullable=False),
        sa.Column("worker", sa.String(length=100), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("is_permanent", sa.Boolean(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["render_id"], ["renders.id"], name="fk_failed_attempts_render_id_renders", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_failed_attempts"),
    )
    with op.batch_alter_table("failed_attempts", schema=None) as batch_op:
        batch_op.create_index("ix_failed_attempts_render_id", ["render_id"], unique=False)
        batch_op.create_index("ix_failed_attempts_unit_id", ["unit_id"], unique=False)

    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("machine", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("done_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column("failures_in_a_row", sa.BigInteger(), server_default="0", nullable=False)
        )
        batch_op.add_column(sa.Column("first_failed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("drained_since", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("quarantined_since", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("quarantine_reason", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("labels", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("software", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("software")
        batch_op.drop_column("labels")
        batch_op.drop_column("quarantine_reason")
        batch_op.drop_column("quarantined_since")
        batch_op.drop_column("drained_since")
        batch_op.drop_column("first_failed_at")
        batch_op.drop_column("failures_in_a_row")
        batch_op.drop_column("done_at")
        batch_op.drop_column("machine")

    with op.batch_alter_table("failed_attempts", schema=None) as batch_op:
        batch_op.drop_index("ix_failed_attempts_unit_id")
        batch_op.drop_index("ix_failed_attempts_render_id")

    op.drop_table("failed_attempts")
