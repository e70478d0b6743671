"""Whatever is no network, compared by itself: losses, metrics, augmentation, optimisers, …"""
