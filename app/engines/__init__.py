"""The engines that a render may ask for."""
