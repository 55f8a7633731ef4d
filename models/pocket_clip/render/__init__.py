"""The renderer of pocket_clip's training pictures: everything the backbone has ever seen is drawn here."""
