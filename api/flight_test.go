package api_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/api"
)

// call makes a request of the HTTP endpoint.
func call(t *testing.T, method, url, bearer string) (code int, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(soon(t), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if body, err = io.ReadAll(answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, body
}

// isTrace tells whether something begins as an execution trace does.
func isTrace(data []byte) bool { return bytes.HasPrefix(data, []byte("go 1.")) && len(data) > 100 }

// The runtime has one flight recorder, so this is one test and does not run beside others.
func TestFlightRecorderRecordsWhenAskedAndEndsWithTheServer(t *testing.T) {
	server := start(t, api.Config{MetricsAddr: "127.0.0.1:0", Token: token}, &fakePipeline{})
	at := "http://" + server.MetricsAddr().String() + "/debug/flightrecorder"
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		if code, _ := call(t, method, at, ""); code != http.StatusUnauthorized {
			t.Errorf("%s without the token: got %d", method, code)
		}
	}
	if code, body := call(t, http.MethodGet, at, token); code != http.StatusNotFound || !strings.Contains(string(body), "PUT") {
		t.Errorf("before it was asked for: got %d %q", code, body)
	}
	for _, seconds := range []string{"0", "61", "-1", "x"} {
		if code, _ := call(t, http.MethodPut, at+"?seconds="+seconds, token); code != http.StatusBadRequest {
			t.Errorf("%s seconds: got %d", seconds, code)
		}
	}
	if code, _ := call(t, http.MethodPost, at, token); code != http.StatusMethodNotAllowed {
		t.Errorf("POST, which any page can have a browser send: got %d", code)
	}
	// The second one changes the length.
	for _, url := range []string{at, at + "?seconds=5"} {
		if code, body := call(t, http.MethodPut, url, token); code != http.StatusOK {
			t.Fatalf("PUT: got %d %q", code, body)
		}
	}
	for range 2 {
		if code, body := call(t, http.MethodGet, at, token); code != http.StatusOK || !isTrace(body) {
			t.Errorf("while it records: got %d and %d bytes", code, len(body))
		}
	}
	if code, _ := call(t, http.MethodDelete, at, token); code != http.StatusOK {
		t.Errorf("DELETE: got %d", code)
	}
	if code, _ := call(t, http.MethodGet, at, token); code != http.StatusNotFound {
		t.Errorf("after its end: got %d", code)
	}

	// From the start on, and again after a server whose recorder was on has ended.
	for range 2 {
		t.Run("configured", func(t *testing.T) {
			server := start(t, api.Config{MetricsAddr: "127.0.0.1:0", FlightRecorder: 2 * time.Second}, &fakePipeline{})
			at := "http://" + server.MetricsAddr().String() + "/debug/flightrecorder"
			for deadline := time.After(10 * time.Second); ; {
				code, body := call(t, http.MethodGet, at, "")
				if code == http.StatusOK && isTrace(body) {
					return
				}
				select {
				case <-deadline:
					t.Fatalf("got %d and %d bytes", code, len(body))
				default:
				}
			}
		})
	}
	if err := (api.Config{FlightRecorder: time.Minute + 1}).Validate(); err == nil {
		t.Error("more than a minute is accepted")
	}
}

func TestFlightRecorderIsNotThereForStrangers(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{MetricsAddr: "0.0.0.0:0", Insecure: true}, &fakePipeline{})
	_, port, _ := strings.Cut(strings.TrimPrefix(server.MetricsAddr().String(), "[::]"), ":")
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		if code, _ := call(t, method, "http://127.0.0.1:"+port+"/debug/flightrecorder", ""); code != http.StatusNotFound {
			t.Errorf("%s on an open address: got %d", method, code)
		}
	}
}
