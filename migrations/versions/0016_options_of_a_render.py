"""Options of a render

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("video_begins_at", sa.String(length=64), nullable=True))

    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("start_seconds", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("end_seconds", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("scale", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("max_width", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("max_height", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("user_metadata", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("cancel_after", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("cancel_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("cancel_at")
        batch_op.drop_column("cancel_after")
        batch_op.drop_column("user_metadata")
        batch_op.drop_column("max_height")
        batch_op.drop_column("max_width")
        batch_op.drop_column("scale")
        batch_op.drop_column("end_seconds")
        batch_op.drop_column("start_seconds")

    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.drop_column("video_begins_at")
