"""How much of the input's noise is put back

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("renders", "previews"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("grain", sa.Double(), server_default="0", nullable=False))


def downgrade() -> None:
    for table in ("renders", "previews"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("grain")
