"""The developer's code as the front ends see it: names of functions, callables that are asked, decorators of other packages."""
