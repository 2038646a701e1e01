package capture

import "golang.org/x/sys/unix"

// freeSpace returns how many bytes of the file system that holds a folder are free for
// us, and how many it has.
func freeSpace(dir string) (free, total int64, known bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0, 0, false
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, true //nolint:gosec // No file system has 2^63 bytes.
}
