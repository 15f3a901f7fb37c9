import rhythm
from django.db import connection, transaction

client = rhythm.connect_sync()  # connects at its first use, in each process of the server anew


def place_order(order_id: str, amount: float) -> str:
    """The order and the workflow that handles it are written in one transaction: both exist, or neither does."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("insert into orders (id, amount) values (%s, %s)", [order_id, amount])
        inputs = {"orderId": order_id, "amount": amount}
        execution = client.start("processOrder", inputs, key=order_id, connection=connection.connection)
    return str(execution.id)


def cancel_order(order_id: str) -> None:
    """For Rhythm in another database than Django's: the task is started once the order's change is committed."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("delete from orders where id = %s", [order_id])
        transaction.on_commit(lambda: client.start("sendApology", {"orderId": order_id}, key=order_id))
