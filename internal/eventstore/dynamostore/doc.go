// Package dynamostore keeps stored events in one DynamoDB table of its own. It
// implements eventstore.Store and holds no rules. While nothing is asked of it, it asks nothing of
// DynamoDB: there is no goroutine and no poll.
//
//	s, err := dynamostore.Open(ctx, dynamostore.Options{Table: "sluice-events", Region: "eu-central-1"})
//	defer s.Close()
//
// # Items
//
// The table has a partition key pk and a sort key sk, both strings, and time to
// live on the attribute ttl. No secondary index, no stream. T is a tenant, P a partition such as 0-5;
// parts are joined by # and escaped. Numbers in sort keys have leading zeros.
//
//	pk          sk             what
//	p#T         P              state: its JSON (compressed from 1 KB on), version, token of the last write,
//	                           bytes of all batches that ever were, hour under which it is noted below
//	b#T#P       last position  batch: first position, times, size, bytes of all before it, body, ttl
//	l#T#P       position       dead letter
//	tenants     T              list of all tenants
//	expiry#0-7  hour#digest    a partition has batches of which the first expires in that hour
//	meta        schema         version of this design
//
// The states of a tenant lie under one key, so that a claim and a quota cost one
// query; DynamoDB splits them when they are hot, as their sort keys differ. The batches of each partition
// have a key of their own. The list of tenants is one key: it is written once for each tenant, with the first
// partition, in the transaction that creates that, and a page of it is one query.
//
// # Changes
//
// A state is replaced on condition that its version is still the one that was read: by
// a conditional PutItem where nothing else is written, at half the price of a transaction, else by one
// TransactWriteItems with the batches and dead letters. Who loses reads again and applies the change
// again, after a random pause, up to Options.Patience. Within a process the changes of one
// partition take turns, and the state that one left is remembered, so that the next need not
// read it; that nothing is to be done, or that a change is refused, is never said of a remembered state.
// An Update works on 32 partitions at a time.
//
// A write is sent up to three times. When an answer was lost, the token in the state tells whether the write
// happened; DynamoDB itself remembers the token of a transaction. Where others wrote meanwhile and
// nothing tells any more, the error is iot.ErrUnavailable: the same change twice is for the log to
// find out, by the counters of writers.
//
// # Removal
//
// Batches that end below the cursor are removed after the state was written without
// them, at half the price of doing it in the transaction, up to 200 with each change. A process that ends between
// the two leaves batches below Head, which nobody reads or counts; the next removal in the
// partition takes them along, and those with a ttl go by themselves. Batches that are dropped
// between others are removed in the transaction.
//
// # Expiry
//
// A batch has the ttl of the last of its events, and DynamoDB removes it for nothing, some time after
// that. Whoever reads finds positions without a batch, which have expired. Since the offset of a batch is
// stored with it, the bytes of what went before the first batch that is left need not be known to be subtracted.
//
// For what nobody reads there is the sweep. Each partition is noted under the hour in which the first of its
// batches expires, rounded up; the note moves when an append brings an earlier one, and when a sweep
// found nothing left of that hour: about two writes for a partition and day. [Store.Expired] asks the eight lists for hours that
// are over, walks through those partitions, and returns what has expired and is still there, and positions
// whose batches have gone already. Where it finds neither it corrects Bytes and Head, and notes the
// partition anew. So what it does depends on how much has expired, but
// the walk reads a partition's whole backlog, twice on a day on which something in it expired.
//
// # Reads
//
// All reads are strongly consistent. DynamoDB applies a transaction to one item after the other, and a plain
// read in that moment may see the new state but not yet the batch beside it, which would look
// as if it had expired. So whenever positions are without a batch, the item that would end
// there is asked for in a transaction (two read units), which sees what is under way; only what is not there then
// has gone. Dead letters that are asked for are looked at likewise, as they may be about to go. A store remembers for this how far the states went that it gave to its callers.
//
// # Cost
//
// In units for 1 KB written and 4 KB read, begun ones counting whole; in a transaction each counts twice.
// A state is under 1 KB until many retries or writers are in it (about 55 KB at most, where thousands are settled out of order).
// Tests hold the number of requests.
//
//	                         requests  read units  write units
//	append, one partition    1         -           2 + 2 for each KB of the batch
//	  first in a process     2         1           the same
//	  brings an earlier hour                       +2, +4 where one was noted
//	claim, renew             1 + n     1 or 2      n             n partitions, one by one
//	read                     3         2 + bytes   1             without news: 2 requests, no write
//	settle                   1         -           1
//	  removes m batches      3 + m/25  their bytes 1 + 1 for each KB of them
//	dead letter                                    2 + 2 for each KB
//	sweep without anything   9 + n     9 + n       -             n tenants: their states say when dead letters expire
//	idle                     -         -           -
//
// An event of 300 bytes that comes alone is so 4 units in, 2 for read and settle, and
// 1 to be removed: 7, of which batches of 100 events make 0.9. A key takes 1000 write units
// a second until DynamoDB splits it, so a tenant takes 500 appends a second at first, and of its
// 8 partitions each 500 KB a second.
//
// # Rights
//
// The program needs dynamodb:GetItem, Query, PutItem, DeleteItem and BatchWriteItem
// on the table; with Options.Create also CreateTable, DescribeTable and UpdateTimeToLive.
package dynamostore
