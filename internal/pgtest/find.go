package pgtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
)

// CacheEnv names the variable that moves the folder of cached PostgreSQL binaries.
const CacheEnv = "DBMAZZ_PG_CACHE"

// MajorEnv names the variable that chooses the major version of the shared server.
const MajorEnv = "DBMAZZ_TEST_PG_MAJOR"

// ErrNoServer reports that no PostgreSQL server binaries were found.
var ErrNoServer = errors.New("no PostgreSQL server binaries found")

// debianGlob matches the folders of Debian's packages, one per major version.
const debianGlob = "/usr/lib/postgresql/*/bin"

// CacheDir is the folder that holds cached server binaries: node_modules/postgres-N/native/bin for each major N.
// Defaults to dbmazz/postgres in the user's cache folder, for root in /var/cache.
func CacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		// Root's own cache lies in a home that the server's unprivileged user cannot enter.
		return "/var/cache/dbmazz/postgres", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (set %s): %w", CacheEnv, err)
	}
	return filepath.Join(dir, "dbmazz", "postgres"), nil
}

// Majors lists the major versions whose server binaries are installed, oldest first.
func Majors() []int {
	var majors []int
	for major := range installed() {
		majors = append(majors, major)
	}
	slices.Sort(majors)
	return majors
}

// BinDir finds the folder with initdb and postgres of a major version; zero means DefaultMajor.
func BinDir(major int) (string, error) {
	if major == 0 {
		var err error
		if major, err = DefaultMajor(); err != nil {
			return "", err
		}
	}
	dir, ok := installed()[major]
	if !ok {
		return "", fmt.Errorf("find PostgreSQL %d (installed: %v; run \"make setup-postgres-majors\"): %w",
			major, Majors(), ErrNoServer)
	}
	return dir, nil
}

// DefaultMajor is the version that DBMAZZ_TEST_PG_MAJOR names, else the newest one of Debian's packages,
// else the newest one found.
func DefaultMajor() (int, error) {
	if text := os.Getenv(MajorEnv); text != "" {
		major, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("read %s, which must be a major version such as 16: %w", MajorEnv, err)
		}
		return major, nil
	}
	if debian := debianDirs(); len(debian) > 0 {
		newest := 0
		for major := range debian {
			newest = max(newest, major)
		}
		return newest, nil
	}
	majors := Majors()
	if len(majors) == 0 {
		return 0, fmt.Errorf("choose a PostgreSQL (run \"make setup-postgres\"): %w", ErrNoServer)
	}
	return majors[len(majors)-1], nil
}

// installed maps each major version to its folder; Debian's packages win over PATH, PATH over the cache.
func installed() map[int]string {
	found := map[int]string{}
	if cache, err := CacheDir(); err == nil {
		dirs, _ := filepath.Glob(filepath.Join(cache, "node_modules", "postgres-*", "native", "bin")) // The pattern is valid.
		addDirs(found, dirs)
	}
	if postgres, err := exec.LookPath("postgres"); err == nil {
		if target, err := filepath.EvalSymlinks(postgres); err == nil {
			addDirs(found, []string{filepath.Dir(target)})
		}
	}
	maps.Copy(found, debianDirs())
	return found
}

func debianDirs() map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob(debianGlob) // The pattern is valid, and that is its only error.
	addDirs(found, dirs)
	return found
}

func addDirs(found map[int]string, dirs []string) {
	for _, dir := range dirs {
		if major, ok := majorOf(dir); ok {
			found[major] = dir
		}
	}
}

var (
	versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
	versionCache   sync.Map // Folder to major version: asking a binary costs some milliseconds.
)

// majorOf asks the binary itself, because a folder's name proves nothing and a package may be half installed.
func majorOf(dir string) (int, bool) {
	if major, ok := versionCache.Load(dir); ok {
		return major.(int), true
	}
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, false
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, false
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return 0, false
	}
	major, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0, false
	}
	versionCache.Store(dir, major)
	return major, true
}
