from perdure import App

app = App("shop")
