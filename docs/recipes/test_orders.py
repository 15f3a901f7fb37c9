import rhythm


async def test_an_order_is_charged_and_shipped(client: rhythm.Client) -> None:
    execution = await client.start("processOrder", {"orderId": "o-1", "amount": 25.0})

    assert await execution.result(timeout="10s") == {"success": True, "txn_id": "txn-o-1"}
