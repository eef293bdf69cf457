"""Playlists: a render's finished segments as a video that grows while it renders (HLS)."""
