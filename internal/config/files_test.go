package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesWithSecretsThatOthersCanReadAreWarnedOf(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret-text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o440: false, 0o640: false, 0o644: true, 0o604: true, 0o660: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"SINK_PASSWORD_FILE", "GRPC_TOKEN_FILE", "BUS_NKEY_FILE", "BUS_CREDS_FILE", "GRPC_TLS_KEY_FILE", "SINK_TLS_KEY_FILE", "BUS_TLS_KEY_FILE"} {
			environ := minimal(name+"="+file, "SINK_URL=https://fe", "BUS_URL=tls://127.0.0.1")
			if cert := strings.Replace(name, "KEY", "CERT", 1); strings.HasSuffix(name, "TLS_KEY_FILE") {
				environ = append(environ, cert+"=c")
			}
			_, warnings := mustLoad(t, environ)
			found := false
			for _, w := range warnings {
				found = found || (w.Variable == name && strings.Contains(w.Text, file) && strings.Contains(w.Text, "chmod 600"))
			}
			if found != want {
				t.Errorf("%s with mode %#o: %v", name, mode, warnings)
			}
		}
	}
}

func TestTLSFilesOfASinkWithoutTLSAreWarnedOf(t *testing.T) {
	t.Parallel()
	for environ, want := range map[string]int{
		"SINK_TLS_CA_FILE=ca":                         1,
		"SINK_TLS_CERT_FILE=c\x00SINK_TLS_KEY_FILE=k": 1,
		"SINK_TLS_CA_FILE=ca\x00SINK_URL=https://fe":  0,
		"SINK_TLS_CA_FILE=ca\x00SINK_SQL_TLS=true":    0,
		"SINK_URL=https://fe\x00HANDOVER_AFTER_S=0":   0,
	} {
		if _, warnings := mustLoad(t, minimal(strings.Split(environ, "\x00")...)); len(warnings) != want {
			t.Errorf("%q: %v", environ, warnings)
		}
	}
}
