// Package manage is the management node of a router: the address $management,
// at which operators see and end what the router has (AMQP Management 1.0,
// working draft).
//
// A request is a message whose application properties name an operation and
// what it is about; the reply goes to its reply-to, which is an address of the same
// connection: a dynamic one, or one that begins with [ReplyPrefix].
//
//	operation   QUERY, READ, DELETE, GET-TYPES, GET-ATTRIBUTES, GET-OPERATIONS, GET-MGMT-NODES
//	entityType  of QUERY and GET-...: router, listener, connection, link, address, identity; absent = all
//	type        of READ and DELETE; of the others in place of entityType
//	identity    of READ and DELETE, or name: every entity's name is its identity
//	offset      of QUERY: how many entities to pass over
//	count       of QUERY: how many at most; no more than 1,000 in any case
//
// A reply carries statusCode (an int as in HTTP), statusDescription and in its
// correlation-id that of the request, else its message-id. The body of the
// answer to QUERY is a map of attributeNames and of results, a list of lists in that order;
// the application properties count and total say how many are there and how
// many there would be. A reply ends early when it grows large, so that whoever
// wants all asks again from offset plus count on.
//
// Who may ask at all is decided where links are attached; DELETE needs the
// authority for the operation $management:DELETE besides.
//
// What it shows is copied entity by entity, each under its own lock, so that
// nobody waits for a reply to be made. A reply is no snapshot of one moment.
package manage
