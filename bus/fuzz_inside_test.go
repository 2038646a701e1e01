package bus

import (
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// overTheWire is a header after it was sent in a message.
func overTheWire(t *testing.T, h nats.Header) nats.Header {
	t.Helper()
	out := nats.Header{}
	for name, values := range h {
		for _, v := range values {
			// Lines end a value, and blanks around it are cut.
			if strings.ContainsAny(v, "\r\n") || !strings.EqualFold(textproto.TrimString(v), v) {
				t.Fatalf("header %s: %q would arrive as something else", name, v)
			}
			out.Add(name, v)
		}
	}
	return out
}

// FuzzLetter states that id, headers and data of a letter come back as they were put,
// whatever bytes they hold and however many messages they take.
func FuzzLetter(f *testing.F) {
	f.Add("id", "value", []byte("data"), uint16(500))
	f.Add("\"quoted\"\n", "line\nbreak \xff", []byte("data that is longer than one message may be"), uint16(1))
	f.Add(" x", "", []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, id, value string, data []byte, payload uint16) {
		want := Letter{ID: id, Header: map[string]string{"Reason": value, "Table": "public.t"}, Data: data}
		if want.validate() != nil {
			return
		}
		head, parts, err := want.messages("subject", headerAllowance+1+int(payload%2000))
		if err != nil {
			t.Fatal(err)
		}
		body := head.Data
		for _, part := range parts {
			body = append(body, part.Data...)
		}
		raw := &jetstream.RawStreamMsg{Sequence: 7, Header: overTheWire(t, head.Header), Data: head.Data}
		lay, err := layoutOf(raw)
		if err != nil || lay.parts != len(parts) {
			t.Fatalf("%+v of %d parts: %v", lay, len(parts), err)
		}
		got, err := letterOf(raw, lay, body)
		if err != nil {
			t.Fatal(err)
		}
		got.Data = body[lay.exact:]
		if got.ID != want.ID || string(got.Data) != string(want.Data) || got.Damaged || got.Bytes != len(data) {
			t.Fatalf("%+v became %+v", want, got)
		}
		if diff := cmp.Diff(want.Header, got.Header); diff != "" {
			t.Fatal(diff)
		}
		if err := want.sameAs(raw); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzServers states that what is shown of a list of servers has no credentials.
func FuzzServers(f *testing.F) {
	f.Add("nats://user:", "p@ss", "@host:4222,tls://b")
	f.Add("", "secret", "@host")
	f.Fuzz(func(t *testing.T, before, secret, after string) {
		secret = "~s3cr3t" + secret
		if strings.Contains(before, "://") && !strings.Contains(before, "@") && !strings.HasSuffix(before, ":") {
			return // The secret is the host.
		}
		s, err := parseServers("nats://user:" + secret + "@host:4222," + before + "x:" + secret + after)
		if err != nil {
			if strings.Contains(err.Error(), "~s3cr3t") {
				t.Fatalf("the error shows a secret: %v", err)
			}
			return
		}
		for _, host := range s.hosts[:1] {
			if strings.Contains(host, "~s3cr3t") {
				t.Fatalf("%q shows a secret", host)
			}
		}
	})
}
