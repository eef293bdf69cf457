"""When a render was taken from the queue

Revision ID: 0024
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_index("ix_renders_activity")
        batch_op.create_index(
            "ix_renders_activity",
            ["ended_at", "created_at", "started_at", "status", "output_frames"],
            unique=False,
        )


def downgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_index("ix_renders_activity")
        batch_op.create_index(
            "ix_renders_activity", ["ended_at", "created_at", "status", "output_frames"], unique=False
        )
        batch_op.drop_column("started_at")
