"""How much of the network's picture is shown

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("renders", "previews"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("strength", sa.Double(), server_default="1", nullable=False))
    with op.batch_alter_table("previews", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scale", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("previews", schema=None) as batch_op:
        batch_op.drop_column("scale")
    for table in ("renders", "previews"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("strength")
