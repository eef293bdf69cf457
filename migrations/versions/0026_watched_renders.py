"""What playlists of a render's segments need

Revision ID: 0026
Revises: 0025
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("is_watchable", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(sa.Column("segment_times", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("sound_key", sa.String(length=200), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("sound_key")
        batch_op.drop_column("segment_times")
        batch_op.drop_column("is_watchable")
