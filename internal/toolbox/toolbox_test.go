package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// write makes the files of a tree below a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFuzzTargetsAreFoundInTheModuleOnly(t *testing.T) {
	t.Parallel()
	const target1 = "package a\n\nfunc FuzzOne(f *testing.F) {}\n"
	root := write(t, map[string]string{
		"a/a_test.go":          target1 + "\nfunc FuzzTwo(f *testing.F) {}\n",
		"a/testdata/b_test.go": target1,
		"a/c.go":               target1,
		"nested/go.mod":        "module nested\n",
		"nested/d_test.go":     target1,
		".hidden/e_test.go":    target1,
	})
	got, err := targets(root, fuzzFunction)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.ToSlash(filepath.Join(root, "a"))
	want := []target{{dir, "FuzzOne"}, {dir, "FuzzTwo"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{})); diff != "" {
		t.Error(diff)
	}
}

func TestVerifySeesChangedNewAndMissingFiles(t *testing.T) {
	t.Parallel()
	sum := func(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }
	before := map[string][sha256.Size]byte{"same": sum("1"), "changed": sum("1"), "gone": sum("1")}
	after := map[string][sha256.Size]byte{"same": sum("1"), "changed": sum("2"), "new": sum("1")}
	if diff := cmp.Diff([]string{"changed", "gone", "new"}, changes(before, after)); diff != "" {
		t.Error(diff)
	}
}

func TestLinkMakesTheListedLinksAndMayRunAgain(t *testing.T) {
	t.Parallel()
	root := write(t, map[string]string{
		"native/lib/libpq.so.5.17":  "library",
		"native/pg-symlinks.json":   `[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]`,
		"native/share/nothing-here": "",
	})
	for range 2 {
		if err := link(root); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "native/lib/libpq.so.5"))
	if err != nil || string(text) != "library" {
		t.Errorf("read %q through the link, error %v", text, err)
	}
}

func TestLinkRefusesToLeaveThePackage(t *testing.T) {
	t.Parallel()
	root := write(t, map[string]string{
		"package/native/pg-symlinks.json": `[{"source":"native/x","target":"../outside"}]`,
	})
	if err := link(filepath.Join(root, "package")); err == nil {
		t.Error("a link outside the package was made without an error")
	}
	if _, err := os.Lstat(filepath.Join(root, "outside")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link was made outside the package: %v", err)
	}
}

func TestToolsAreNamedByTheirPackage(t *testing.T) {
	t.Parallel()
	for pkg, want := range map[string]string{
		natsServerModule: "nats-server", golangciLint.pkg: "golangci-lint", grpcurl.pkg: "grpcurl",
	} {
		if got := (tool{pkg: pkg}).name(); got != want {
			t.Errorf("%s is called %q, want %q", pkg, got, want)
		}
	}
}

func TestStaticRefusesABinaryWithAnInterpreter(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := (staticCommand{Binary: sh}).Run(); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("error %v for a dynamically linked binary, want the remedy", err)
	}
}

func TestQuietlyShowsTheOutputOfAFailedCommandOnly(t *testing.T) {
	t.Parallel()
	if err := quietly(t.Context(), "say yes", command(t.Context(), "sh", "-c", "echo fine")); err != nil {
		t.Errorf("error %v of a command that succeeded", err)
	}
	err := quietly(t.Context(), "say no", command(t.Context(), "sh", "-c", "echo the reason >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("error %v, want the command's output in it", err)
	}
}

func TestQuietlyEndsWhenItsContextDoes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := quietly(ctx, "wait", command(ctx, "sleep", "60"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}
