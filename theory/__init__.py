if __name__ != "loadsparse.theory":
    raise ImportError("this folder is the package loadsparse.theory: install the project, then import it by that name")
