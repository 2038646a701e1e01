// Package roster decides which of several processes does a job: one leads, the others
// stand by and take over when it is gone.
//
// # Promise
//
// At no instant do two members find [Term.Check] without an error, and what a member
// does within Config.Margin after such a Check is over before another one leads. This
// holds when answers of the store are lost or late, when the store is away, and when a
// process is stopped and goes on later, at any instruction. It does not compare the
// clocks of two hosts; it needs that the clocks run at about the same speed: within a
// TTL they must drift apart by less than what Margin leaves after the work.
//
// # Mechanism
//
// The leader's name is the value of one key of a compare-and-set store. The leader
// rewrites it every Config.Renew. It counts its term as valid from the moment at which it
// began to write, for the TTL minus the margin; so a late answer never makes it longer.
// A standby may take the key when it has itself seen the same revision for the whole
// TTL, which began after the leader's last write, and it names that revision when it
// writes. A term that was released is taken at once, one whose key was deleted or
// overwritten by hand after the TTL, because its leader may not know yet.
//
// # Clocks
//
// Time is measured by CLOCK_BOOTTIME, which goes on while a process is stopped and while
// the machine sleeps, and beside it by the wall clock: whichever says that more time has
// passed counts. A hypervisor that freezes a guest together with all its clocks cannot
// be noticed from inside before the wall clock is set right. What a leader writes should
// therefore be conditional as well; for the stages of dbmazz it is: frames name the
// message that they follow, plan and checkpoint are compared and set.
package roster
