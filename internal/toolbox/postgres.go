package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// The lock file names packages and checksums, no registry: npm asks the one it is set up for.
//
//go:embed postgres/package.json postgres/package-lock.json
var postgresPackages embed.FS

// skipCluster keeps Debian's package from making and starting a server of its own during the install.
const (
	skipCluster     = "create_main_cluster = false\n"
	skipClusterFile = "/etc/postgresql-common/createcluster.d/dbmazz-setup.conf"
)

type postgresCommand struct{}

// Run makes sure that tests and the demo find a PostgreSQL server.
func (postgresCommand) Run(ctx context.Context) error {
	dir, err := pgtest.BinDir(0)
	if errors.Is(err, pgtest.ErrNoServer) && os.Getenv(pgtest.MajorEnv) == "" {
		if err := installPostgres(ctx); err != nil {
			return err
		}
		dir, err = pgtest.BinDir(0)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Println(dir)
	return err
}

func installPostgres(ctx context.Context) error {
	if os.Geteuid() == 0 {
		if err := os.MkdirAll(filepath.Dir(skipClusterFile), 0o755); err != nil {
			return fmt.Errorf("make the folder for %s: %w", skipClusterFile, err)
		}
		if err := os.WriteFile(skipClusterFile, []byte(skipCluster), 0o644); err != nil {
			return fmt.Errorf("keep the package from starting a server: %w", err)
		}
	}
	err := aptInstall(ctx, "no PostgreSQL server binaries (or run \"make setup-postgres-majors\")", "postgresql")
	if removeErr := os.Remove(skipClusterFile); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}

type postgresMajorsCommand struct{}

// Run installs the packages of the lock file into the cache.
func (postgresMajorsCommand) Run(ctx context.Context) error {
	cache, err := pgtest.CacheDir()
	if err != nil {
		return err
	}
	err = locked(cache, func() error { return installMajors(ctx, cache) })
	if err != nil {
		return err
	}
	say("PostgreSQL major versions: %v", pgtest.Majors())
	return nil
}

// doneFile holds the lock file that was installed last: the same one again needs no work.
const doneFile = "installed-lock.json"

func installMajors(ctx context.Context, cache string) error {
	lock, err := postgresPackages.ReadFile("postgres/package-lock.json")
	if err != nil {
		return fmt.Errorf("read the embedded lock file: %w", err)
	}
	done, err := os.ReadFile(filepath.Join(cache, doneFile))
	packages, globErr := filepath.Glob(filepath.Join(cache, "node_modules", "postgres-*"))
	if err == nil && globErr == nil && bytes.Equal(done, lock) && len(packages) > 0 {
		return nil
	}
	if _, err := exec.LookPath("npm"); err != nil {
		if err := aptInstall(ctx, "PostgreSQL binaries of other versions come as npm packages", "nodejs", "npm"); err != nil {
			return err
		}
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := postgresPackages.ReadFile("postgres/" + name)
		if err != nil {
			return fmt.Errorf("read the embedded package list: %w", err)
		}
		if err := os.WriteFile(filepath.Join(cache, name), text, 0o644); err != nil {
			return fmt.Errorf("write the package list: %w", err)
		}
	}
	npm := command(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved")
	npm.Dir = cache
	if err := quietly(ctx, "install PostgreSQL binaries into "+cache, npm); err != nil {
		return err
	}
	packages, err = filepath.Glob(filepath.Join(cache, "node_modules", "postgres-*"))
	if err != nil {
		return fmt.Errorf("list the installed packages: %w", err)
	}
	for _, dir := range packages {
		if err := link(dir); err != nil {
			return fmt.Errorf("link the libraries of %s: %w", filepath.Base(dir), err)
		}
	}
	return os.WriteFile(filepath.Join(cache, doneFile), lock, 0o644)
}

// link makes the symbolic links that a package can only list, because npm packages cannot carry any.
func link(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // Nothing is buffered.
	text, err := root.ReadFile("native/pg-symlinks.json")
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	for _, l := range links {
		source, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(source, l.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
