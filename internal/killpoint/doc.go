// Package killpoint names the instants at which the chaos suite ends or halts a process: between storing and
// acknowledging, planning and loading, loading and confirming.
//
// In an ordinary build [Reached] is empty and the compiler leaves nothing of it. A build with the tag chaos looks, each
// time it passes a point, for the file that DBMAZZ_KILLPOINT names. Its line "name passes verb" means: let the point pass
// that many times, then kill (SIGKILL) or stop (SIGSTOP) this process. The file is renamed to the same name with ".hit"
// before that, so whoever wrote it knows that it struck, and that it strikes once.
package killpoint
