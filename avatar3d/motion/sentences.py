"""Sentences in many languages, spoken by eSpeak NG to learn how speech moves a mouth."""

# ruff: noqa: RUF001 (letters of many scripts)

__all__ = ["SENTENCES"]

SENTENCES: dict[str, str] = {
    "en": "The quick brown fox jumps over the lazy dog. We saw a boat moving slowly up the river, "
    "while people were waving from both banks. Please remember to bring the map, a warm pullover "
    "and a bottle of fresh water. Why would anybody choose such a strange thing?",
    "de": "Guten Abend, meine Damen und Herren. Im Parlament wurde heute über den neuen Haushalt "
    "beraten. Viele Abgeordnete forderten mehr Geld für Schulen, Wohnungen und bessere Straßen. "
    "Morgen bleibt es am Vormittag neblig, später wird es sonnig und warm.",
    "fr": "Bonjour à tous et bienvenue. Le petit chat noir a bu un peu de lait avant de monter sur "
    "le mur du jardin. Nous avons vu beaucoup de monde au marché ce matin, et le pain était "
    "vraiment bon. Voulez-vous une feuille jaune ou bleue ?",
    "es": "Buenos días a todos. El perro corre por la playa mientras los niños juegan con una "
    "pelota roja. Mañana por la mañana vamos a comprar pan, fruta y un poco de vino.",
    "it": "Buongiorno a tutti. La mia famiglia abita vicino al mare, dove il vento soffia forte e "
    "le barche tornano piene di pesce. Vorrei un bicchiere d'acqua, per favore.",
    "pt": "Bom dia. A minha mãe comprou pão, peixe e uma garrafa de vinho no mercado. Amanhã vamos "
    "viajar para uma cidade pequena perto do rio.",
    "ru": "Добрый вечер. Сегодня в Москве прошёл большой праздник, на который пришли тысячи людей. "
    "Завтра будет тепло, местами возможен небольшой дождь.",
    "cmn": "大家好,欢迎来到北京。今天的天气非常好,我们一起去公园散步吧。"
    "他说明天可能会下雨,所以最好带一把伞。",
    "ja": "みなさん、おはよう ございます。きょうは てんきが とても いいので、こうえんまで あるいて "
    "いきましょう。えきの まえで ともだちに あって、いっしょに パンを たべました。",
    "hi": "नमस्ते। आज मौसम बहुत अच्छा है, इसलिए हम बाज़ार जाकर फल और सब्ज़ी खरीदेंगे। मेरा भाई किताब पढ़ रहा है।",
    "ar": "صباح الخير. ذهبت مع صديقي إلى السوق لشراء الخبز والفاكهة، ثم عدنا إلى البيت قبل المطر.",
    "tr": "Günaydın. Bugün hava çok güzel, bu yüzden vapurla karşıya geçip biraz yürüyeceğiz. "
    "Annem pazardan meyve ve balık aldı.",
}
"""Plain text per eSpeak NG language code. Japanese in kana, because eSpeak NG cannot read kanji."""
