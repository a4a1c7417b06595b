// Package command is what a router knows of the ways to devices, and what it
// does with the commands that applications send to them (contract: messaging 6, 9).
//
// A [Directory] holds which adapter process can reach which device. Adapters
// announce that on the address device_directory ([Directory] is told by an
// [Announcements]); adapters of others by Hono's Command Router API. What came
// over a link is forgotten with it. An entry that a later one superseded is kept
// behind it and counts again when the later one goes; both adapters are told.
//
// A [Server] takes the messages sent to command/T: it checks them, looks the
// device up, chooses the way, sends the message on to the adapter and gives the
// application the adapter's outcome, unchanged, when the adapter has one.
package command
