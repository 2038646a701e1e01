package e2e_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// parallelTests bounds how many tests run at a time unless -parallel says otherwise.
// They wait most of the time, so there may be more of them than cores.
const parallelTests = 8

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(parallelTests)); err != nil {
			panic(err)
		}
	}
	code := pgtest.Tests(m).Run()
	if err := builds.remove(); err != nil {
		fmt.Fprintln(os.Stderr, "remove the binaries:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// buildCache builds the binary once per run and way of building it.
type buildCache struct {
	mu    sync.Mutex
	dir   string
	built map[bool]builtBinary
}

type builtBinary struct {
	path string
	err  error
}

var builds = buildCache{built: map[bool]builtBinary{}}

// binary returns the path of dbmazz, with the race detector inside if wanted.
func (b *buildCache) binary(t testing.TB, race bool) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	found, ok := b.built[race]
	if !ok {
		found.path, found.err = b.build(race)
		b.built[race] = found
	}
	if found.err != nil {
		t.Fatal(found.err)
	}
	return found.path
}

func (b *buildCache) build(race bool) (string, error) {
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "dbmazz-e2e-")
		if err != nil {
			return "", err
		}
		b.dir = dir
	}
	path, args, cgo := filepath.Join(b.dir, "dbmazz"), []string{"build"}, "CGO_ENABLED=0"
	if race {
		path, args, cgo = path+"-race", append(args, "-race"), "CGO_ENABLED=1"
	}
	build := exec.Command("go", append(args, "-o", path, "github.com/dbmazz/dbmazz/cmd/dbmazz")...)
	build.Env = append(os.Environ(), cgo)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build dbmazz: %w\n%s", err, out)
	}
	return path, nil
}

func (b *buildCache) remove() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// seedEnv names the variable that repeats a random test.
const seedEnv = "DBMAZZ_E2E_SEED"

// random returns a generator whose seed is in the test's log.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("read %s: %v", seedEnv, err)
		}
	}
	t.Logf("%s=%d repeats the random choices", seedEnv, seed)
	return rand.New(rand.NewPCG(seed, seed))
}
