if __name__ != "loadsparse.tutorials":
    raise ImportError(
        "this folder is the package loadsparse.tutorials: install the project, then import it by that name"
    )
