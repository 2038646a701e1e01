package freeport

import (
	"net"
	"testing"
)

func TestPortsAreFreeAndGivenOnce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 200 {
		addr, err := PickAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Fatalf("%s was given twice", addr)
		}
		seen[addr] = true
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if port := listener.Addr().(*net.TCPAddr).Port; port < lowest || port >= outgoing() {
			t.Errorf("port %d is one of outgoing connections, from %d on", port, outgoing())
		}
	}
}

func TestRangeOfOutgoingConnections(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"32768\t60999\n": 32768,
		"49152 65535":    49152,
		"1024\t65535\n":  usualRange, // No room beneath it.
		"nonsense":       usualRange,
		"":               usualRange,
	} {
		if got := begin(text); got != want {
			t.Errorf("%q begins at %d, want %d", text, got, want)
		}
	}
}
