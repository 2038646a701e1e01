package starrocks

import (
	"context"
	"net/url"
	"strings"
	"testing"
)

type fixedDirectory []endpoint

func (d fixedDirectory) nodes(context.Context) ([]endpoint, error)  { return d, nil }
func (d fixedDirectory) frontEnd(context.Context) (endpoint, error) { return d[0], nil }

func TestRedirectsAreFollowedToKnownHostsOnly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		base, location, want string // want empty: refused
	}{
		{"http://fe:8030", "http://be1:8040/x?a=b", "http://be1:8040/x?a=b"},
		{"http://fe:8030", "http://BE1:8040/x", "http://BE1:8040/x"},
		{"http://fe:8030", "http://be1:9999/x", ""},
		{"http://fe:8030", "http://evil:8040/x", ""},
		{"http://fe:8030", "http://fe:8040/x", "http://fe:8040/x"},
		{"http://fe:8030", "http://127.0.0.1:8040/x", "http://fe:8040/x"},
		{"http://fe:8030", "http://localhost:8040/x", "http://fe:8040/x"},
		{"http://127.0.0.1:8030", "http://127.0.0.2:8040/x", ""},
		{"http://fe:8030", "http://user:pw@be1:8040/x", "http://be1:8040/x"},
		{"http://fe:8030", "http://trusted:1/x", "http://trusted:1/x"},
		{"http://fe:8030", "http://pinned:8040/x", "http://pinned:8040/x"},
		{"http://fe:8030", "http://pinned:8041/x", ""},
		{"http://fe:8030", "ftp://be1:8040/x", ""},
		{"http://fe:8030", "file:///etc/passwd", ""},
		{"https://fe:8030", "http://be1:8040/x", ""},
		{"https://fe:8030", "http://fe:8040/x", ""},
		{"https://fe:8030", "http://trusted:8040/x", "http://trusted:8040/x"},
		{"https://fe:8030", "https://be1:8040/x", "https://be1:8040/x"},
	} {
		base, err := url.Parse(test.base)
		if err != nil {
			t.Fatal(err)
		}
		location, err := url.Parse(test.location)
		if err != nil {
			t.Fatal(err)
		}
		h := newHosts(&Config{MySQLAddr: "fe:9030", TrustedHosts: []string{"Trusted", "pinned:8040"}}, base, fixedDirectory{{"be1", "8040"}})
		got, err := h.allow(t.Context(), location)
		switch {
		case test.want == "" && err == nil:
			t.Errorf("from %s to %s: allowed", test.base, test.location)
		case test.want != "" && (err != nil || got.String() != test.want):
			t.Errorf("from %s to %s: got %v, error %v; want %s", test.base, test.location, got, err, test.want)
		case err != nil && (strings.Contains(err.Error(), "pw") || !IsPermanent(err)):
			t.Errorf("from %s to %s: error %v", test.base, test.location, err)
		}
	}
}

func TestFrontEndBehindALoopbackAddressIsReachedThroughTheConfiguredHost(t *testing.T) {
	t.Parallel()
	base := &url.URL{Scheme: "http", Host: "be:8040"}
	h := newHosts(&Config{MySQLAddr: "sr.example:9030"}, base, fixedDirectory{{"127.0.0.1", "8030"}})
	got, err := h.frontEnd(t.Context())
	if err != nil || got.String() != "http://sr.example:8030" {
		t.Errorf("got %v, error %v", got, err)
	}
}
