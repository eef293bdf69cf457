"""The box that a preview's frame would be fitted into

Revision ID: 0032
Revises: 0031
"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("previews", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_width", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("max_height", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("previews", schema=None) as batch_op:
        batch_op.drop_column("max_height")
        batch_op.drop_column("max_width")
