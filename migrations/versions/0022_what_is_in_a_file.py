"""What is in a file, and renders by their end

Revision ID: 0022
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("codec", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("pix_fmt", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("transfer", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("sound", sa.JSON(), nullable=True))

    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.create_index(
            "ix_renders_activity", ["ended_at", "created_at", "status", "output_frames"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_index("ix_renders_activity")

    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.drop_column("sound")
        batch_op.drop_column("transfer")
        batch_op.drop_column("pix_fmt")
        batch_op.drop_column("codec")
