"""What a developer's code looks like: names of functions, callables that are asked, decorators of other packages."""
