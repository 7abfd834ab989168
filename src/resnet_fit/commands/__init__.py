"""The commands of ``resnet-fit``, one file each: every one has ``run(arguments)``."""
