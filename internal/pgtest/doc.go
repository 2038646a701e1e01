// Package pgtest runs real PostgreSQL servers for tests and for the demo.
//
// Database gives a test a fresh database on a server that all tests of the process share.
// Start and StartServer give a caller a server of its own, to stop, kill and restart as it likes.
// No server outlives the process that started it: the kernel stops the server when its parent
// dies, however it dies, and data folders that a killed process left behind are removed by the next one.
//
// Server binaries come from Debian's postgresql packages, from PATH, or from the project's cache folder,
// which "make setup-postgres-majors" fills with several major versions.
// PostgreSQL refuses to run as root, so root starts it as the user postgres or nobody.
package pgtest
