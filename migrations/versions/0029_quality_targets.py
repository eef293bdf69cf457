"""A quality that is searched for, and what was found

Revision ID: 0029
Revises: 0028
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("encoded_quality", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("crf", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("vmaf", sa.Double(), nullable=True))
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("measures_vmaf", sa.Boolean(), server_default=sa.false(), nullable=False)
        )


def downgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("measures_vmaf")
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.drop_column("vmaf")
        batch_op.drop_column("crf")
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("encoded_quality")
