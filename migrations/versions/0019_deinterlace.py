"""How interlaced frames are shown

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("renders", "previews"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(
                sa.Column("deinterlace", sa.String(length=16), server_default="auto", nullable=False)
            )


def downgrade() -> None:
    for table in ("renders", "previews"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("deinterlace")
