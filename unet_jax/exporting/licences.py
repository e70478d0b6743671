"""What the publishers of data sets allow, as they state it, for those who get a network."""

LICENCES = {
    "shapes": "The pictures are rendered by unet-jax (Apache-2.0); nobody else's are in them.",
    "carvana": (
        "Carvana Image Masking Challenge: Kaggle competition data, under the competition's rules; "
        "the pictures must not be passed on. https://www.kaggle.com/c/carvana-image-masking-challenge"
    ),
    "camvid": (
        "CamVid: personal and research use (CC BY-NC), which commercial use of the weights may "
        "conflict with. http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
    ),
    "ade20k": (
        "ADE20K: BSD-3 for its software and annotations; the images for research and education "
        "alone, and they belong to their photographers. "
        "https://groups.csail.mit.edu/vision/datasets/ADE20K/"
    ),
    "folder": (
        "The author's own folder of images and masks: its terms are not known to this program, and "
        "have to be written here by whoever publishes the weights."
    ),
}
UNKNOWN = "Not known: the weights come from a file that does not say what they were trained on."
