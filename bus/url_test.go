package bus_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

func TestUnreachableServerIsNamed(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	_, err := bustest.TryOpen(t, bus.Config{URL: "nats://u%40:hunter2@127.0.0.1:1, tls://127.0.0.1:2"})
	var unreachable *bus.ConnectError
	if !errors.As(err, &unreachable) || unreachable.Server != "127.0.0.1:1, 127.0.0.1:2" || unreachable.Remedy == "" {
		t.Fatalf("got %v", err)
	}
	if text := err.Error(); !strings.Contains(text, "refused") || strings.Contains(text, "hunter2") || strings.Contains(text, "u%40") || !strings.Contains(text, "BUS_URL") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestMalformedURLsShowNothing(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"nats://u:hunter2@:x:y", "http://u:hunter2@host", "nats://u:hunter2@", "nats://ok:4222,,", "nats://u:hun%zzter2@host:4222",
		"nats://u:hunter2:#@host:4222", "nats://u:12?hunter2@host:4222", "nats://hunter2/@host:4222", "nats://u:12/hunter2",
		"nats://u:12,hunter2@host:4222",
	} {
		_, err := bus.New(bus.Config{Pipeline: "test", URL: url})
		if err == nil || !strings.Contains(err.Error(), "NATS URL") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestSecretsOfURLsAreTakenOutOfErrors(t *testing.T) {
	t.Parallel()
	text, err := bus.Redacted("nats://u%40:hunter%212@h:1,nats://token@h:2", errors.New("u%40:hunter%212 hunter!2 token at h"))
	if err != nil || strings.Contains(text, "hunter") || strings.Contains(text, "token") || !strings.Contains(text, "at h") {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestContradictionsAreRefused(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]bus.Config{
		"choose one":            {URL: "nats://h", Listen: "127.0.0.1:1"},
		"attaches to another":   {DataDir: "x", Attach: true, Listen: "127.0.0.1:1"},
		"not host:port":         {DataDir: "x", Listen: "4222"},
		"without a listen":      {DataDir: "x", ListenTLS: bus.TLSFiles{CertFile: "a", KeyFile: "b"}},
		"but no URL":            {DataDir: "x", Auth: bus.Auth{User: "u"}},
		"more than one way":     {URL: "nats://h", Auth: bus.Auth{User: "u", NKeyFile: "f"}},
		"go together":           {URL: "nats://h", TLS: bus.TLSFiles{KeyFile: "b"}},
		"password without":      {URL: "nats://h", Auth: bus.Auth{Password: "hunter2"}},
		"no certificate of its": {DataDir: "x", Listen: "127.0.0.1:1", ListenTLS: bus.TLSFiles{CAFile: "a"}},
	} {
		cfg.Pipeline = "test"
		if _, err := bus.New(cfg); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestExternalAuthentication lets clients into a real server in every way there is.
func TestExternalAuthentication(t *testing.T) {
	t.Parallel()
	ca, folder := bustest.NewAuthority(t), t.TempDir()
	files := bus.TLSFiles{CAFile: ca.File, CertFile: filepath.Join(folder, "cert.pem"), KeyFile: filepath.Join(folder, "key.pem")}
	ca.Issue(t, files.CertFile, files.KeyFile, 7)
	seed, public := bustest.NKey(t)
	tls := "tls { cert_file: \"" + files.CertFile + "\", key_file: \"" + files.KeyFile + "\", ca_file: \"" + ca.File + "\", verify: true }"
	for _, c := range []struct {
		name, extra string
		cfg         bus.Config
		connect     []nats.Option
	}{
		{"user", "authorization { user: u, password: hunter2 }", bus.Config{Auth: bus.Auth{User: "u", Password: "hunter2"}}, []nats.Option{nats.UserInfo("u", "hunter2")}},
		{"token", "authorization { token: hunter2 }", bus.Config{Auth: bus.Auth{User: "hunter2"}}, []nats.Option{nats.Token("hunter2")}},
		{"nkey", "authorization { users: [ { nkey: " + public + " } ] }", bus.Config{Auth: bus.Auth{NKeyFile: seed}}, []nats.Option{nkeyOption(t, seed)}},
		{"tls", tls, bus.Config{TLS: files}, []nats.Option{nats.RootCAs(ca.File), nats.ClientCert(files.CertFile, files.KeyFile)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := bustest.StartServer(t, bustest.ServerConfig{Extra: c.extra, Connect: c.connect})
			_, err := bustest.TryOpen(t, bus.Config{URL: s.URL})
			var refused *bus.ConnectError
			if !errors.As(err, &refused) {
				t.Errorf("without credentials: %v", err)
			}
			_, err = bustest.TryOpen(t, bus.Config{URL: strings.Replace(s.URL, "://", "://u:wrong-one@", 1)})
			if !errors.As(err, &refused) || strings.Contains(err.Error(), "wrong-one") {
				t.Errorf("with a wrong password: %v", err)
			}
			c.cfg.URL = s.URL
			b := bustest.Open(t, c.cfg)
			publish(t, b, 3, 10)
			s.Kill(t)
			s.Start(t)
			readAll(t, b, 0, 3)
		})
	}
}

func nkeyOption(t *testing.T, seed string) nats.Option {
	t.Helper()
	option, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return option
}
