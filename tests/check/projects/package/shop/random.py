def choice(of: list[str]) -> str:
    return of[0]
