"""What hangs and what is put off

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("renders", "segments"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(
                sa.Column("lone_outages", sa.BigInteger(), server_default="0", nullable=False)
            )
            batch_op.add_column(sa.Column("postponed_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("progress_at")
    for table in ("segments", "renders"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("postponed_at")
            batch_op.drop_column("lone_outages")
