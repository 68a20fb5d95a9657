if __name__ != "loadsparse.gpu":
    raise ImportError("this folder is the package loadsparse.gpu: install the project, then import it by that name")
