"""Codecs and containers of renders

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("codec", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("container", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("output_quality", sa.String(length=16), nullable=True))

    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("lacked_codecs", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("lacked_codecs")

    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("output_quality")
        batch_op.drop_column("container")
        batch_op.drop_column("codec")
