from perdure import App

first, second = App("first"), App("second")
first.include(second)
