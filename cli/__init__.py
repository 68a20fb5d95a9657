if __name__ != "loadsparse.cli":
    raise ImportError("this folder is the package loadsparse.cli: install the project, then import it by that name")
