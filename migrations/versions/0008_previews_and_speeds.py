"""Previews, and how fast workers are

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "previews",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("file_id", sa.String(length=32), nullable=False),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("at_seconds", sa.String(length=64), nullable=False),
        sa.Column("crop_x", sa.BigInteger(), nullable=True),
        sa.Column("crop_y", sa.BigInteger(), nullable=True),
        sa.Column("crop_width", sa.BigInteger(), nullable=True),
        sa.Column("crop_height", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("before_key", sa.String(length=200), nullable=True),
        sa.Column("after_key", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String(length=100), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_previews_file_id_files")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_previews_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_previews")),
    )
    with op.batch_alter_table("previews", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_previews_file_id"), ["file_id"], unique=False)
        batch_op.create_index(
            "ix_previews_open",
            ["created_at"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index("ix_previews_user_id_created_at", ["user_id", "created_at", "id"], unique=False)
    op.create_table(
        "measured_speeds",
        sa.Column("worker_device", sa.String(length=100), nullable=False),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("pixels_per_second", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_device", "engine", name=op.f("pk_measured_speeds")),
    )
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("device_name", sa.String(length=100), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("device_name")
    op.drop_table("measured_speeds")
    op.drop_table("previews")
