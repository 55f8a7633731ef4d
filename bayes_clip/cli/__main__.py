"""python -m bayes_clip.cli"""

from bayes_clip.cli import main

main()
