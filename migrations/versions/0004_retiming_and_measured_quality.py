"""How a render is retimed, and its measured quality

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Every new column may be left out: the version before goes on writing rows meanwhile.
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("retime", sa.String(length=16), server_default="nearest", nullable=False)
        )
        batch_op.add_column(
            sa.Column("measures_quality", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(sa.Column("quality", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("quality")
        batch_op.drop_column("measures_quality")
        batch_op.drop_column("retime")
