package roster_test

const childAddress = "ROSTER_CHILD"

func child(string) error { return nil }
