// Package forward is the router's core: it moves deliveries between the links
// of one process under two rules.
//
// The credit rule. A sender on an anycast address has credit only while a
// receiver is attached. It stands at one; sending raises it to its share of
// what the receivers give, and one idle second lowers it again. What arrives
// beyond the receivers' credit is surplus: an unsettled delivery is held for at most
// [SurplusTime] and then released, a pre-settled one until it is taken, or
// counted as dropped when the last receiver leaves. A sender with surplus gets
// no credit until that is gone. So an idle sender never keeps an active one
// from sending, and a receiver that gave one credit gets one delivery.
//
// The settlement rule. A receiver's outcome goes back to the sender unchanged.
// A receiver that is lost after a delivery went out to it, and before it
// settled, makes the outcome modified(delivery-failed).
//
// It knows addresses, links, credit and deliveries. Who may do what, and what
// a message must carry, is decided behind [Policy] and [Gate].
//
// Locks: that of the router for its lists, where addresses end; then that of an
// address, then at most that of one connection. None is taken while one behind
// it in this order is held.
package forward
