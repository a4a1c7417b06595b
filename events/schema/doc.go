// Package schema holds the JSON schema of the data of every type of CloudEvent
// in the catalogue, one file per type, named <type>.json (contract: events,
// section 1, dataschema). A type without data has none. It validates nothing
// by itself; readers of the platform ignore members they do not know, and so
// do the schemas.
//
// Two have data that is not JSON, and no schema: io.sluice.eventstore.append and
// io.sluice.eventstore.read.result are of the type application/vnd.sluice.records,
// records one after the other as the contract lays them down, at most 1,000 of them and 1 MiB.
// What goes beside them are attributes: of an append, holder (String) is who appends, as
// it claims; of the reply to a read, nextposition (String, decimal digits) is the from of the next
// one, endposition (the same) the next position to be given, nextat (Timestamp) when
// the next event is due again, absent for none, and wanted (Boolean) that another holder
// waits for the partition. The reply to a settle has nextat, too.
package schema
