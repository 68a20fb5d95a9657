if __name__ != "loadsparse.reference":
    raise ImportError(
        "this folder is the package loadsparse.reference: install the project, then import it by that name"
    )
